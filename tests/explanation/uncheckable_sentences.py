"""Sentences that say nothing measurable of the region, as auditors and language models write them."""

UNCHECKABLE = tuple(
    line.strip()
    for line in """
    The left-over glue was not removed before packing.
    The bracket forms a right angle with the base plate.
    The label sits at the bottom of the bottle.
    Upper management has been informed about the deviation.
    The operator works on the right side of the line.
    The reference image is brighter than this one.
    The background is darker in the lower right.
    The surrounding area is bright and uniform.
    Compare with the lower right of the reference image.
    The lighting is brighter on the right side of the image.
    The part was inspected at 3 o'clock in the afternoon.
    The shift ended at two o'clock.
    The left bore hole is round and clean.
    The right hole is 12 mm wide.
    The crop measures 64 x 64 px.
    The part has two holes.
    The scale bar is 5 mm long.
    It may be darker than the rest of the lot.
    It is unclear whether the mark is brighter or darker.
    If the stain were redder, it would indicate corrosion.
    Is the mark in the lower right of the part?
    It could be a scratch in the lower right of the part.
    This looks like a scratch caused by tool contact.
    The mark is probably due to handling.
    The defect is critical and the part should be rejected.
    A minor cosmetic flaw that does not impair function.
    Corrosion cannot be excluded.
    This is consistent with a dent.
    The other parts of the lot show no such feature.
    The right decision is to have a person look at it.
    The part should be put right before shipping.
    It is in the right place.
    It is nothing to write home about.
    A bright future lies ahead of this supplier.
    It is brighter on the left than on the right.
    The mark is brightest at its lower right end.
    It tapers towards the lower right.
    The upper edge of the region is sharper than the lower edge.
    The region starts at the lower right of a weld seam.
    It is lighter than a feather.
    It is not much darker than its surroundings.
    Unlike the compact region R2, no conclusion is possible here.
    The edge on the right is intact.
    No mark is visible in the lower right of the part.
    The remaining surface shows a uniform texture.
    There is no hole in the lower right of the reference.
    The image was cropped to 30 x 20 px.
    The temperature was 30 °C at the time of inspection.
    The score is 0.97 and the p-value is 0.004.
    Two further regions were found.
    The contrast is low in the lower right corner.
    A person should check the lower right corner of the part.
    Its surroundings are uniform and bright.
    The area around the mark is bright.
    The region is 12 px from the lower right hole.
    The left and right flanks look alike.
    The bottom line is that this part needs a second look.
    At the end of the day, a compact report is wanted.
    The middle management of the upper site was told.
    The top priority is a round-table review.
    It belongs to the upper end of the tolerance range.
    The camera is tilted by 90 degrees.
    The part is rotated by 90 degrees against the drawing.
    The long side of the part is clean.
    A circular saw might have left the mark.
    The blue marking is printed on purpose.
    The red arrow was drawn by software.
    The region is darker at its centre.
    The mark is aligned with the lower right edge of the bore.
    The vertical seam is normal.
    It extends 5 mm below the surface.
    I would call it a light scratch on a bright part.
    Please verify the lower right of the part under a microscope.
    The anomaly score is highest in the lower right.
    The part is round.
    The component is elongated and bright.
    The mark lies to the right of the logo.
    It lies below the lower right screw.
    The mark is next to a bright, round sticker in the lower right.
    The texture is irregular in shape and size elsewhere.
    The finding was recorded on the right monitor.
    The region lies on the dark side of the weld.
    It is more than meets the eye.
    About 3 % of the parts show this mark.
    Its cause lies in the upper tool.
    The mark reaches the border of what can be resolved.
    The region touches the edge of the logo.
    It was found on the left tray at the top of the stack.
    The indication has the same brightness as on the reference parts.
    It is bright enough to be seen.
    No comparable mark was seen on the first part of the lot.
    The light falls from the lower right and is brighter there.
    The mark resembles a round stamp at the lower right of older parts.
    A drawing note in the lower right corner of the sheet asks for this radius.
    The customer complained about the lower right corner in March.
    On the reference, the same spot is brighter.
    The spot on the reference part is brighter.
    The anomaly map is bright in the lower right.
    The heat map shows a bright area in the lower right of the image.
    The overlay shows the region in yellow.
    The yellow outline was drawn by software.
    The outline drawn in red is a compact polygon.
    The region's neighbour is round.
    Its neighbour in the lower right is brighter.
    Both marks are brighter than the seam.
    Neither the edge nor the rim is affected.
    The part is held at the lower right by a clamp.
    The mark's left end is brighter than its right end.
    It gets brighter towards the lower right.
    It extends from the upper left towards the lower right.
    It runs parallel to the lower right edge.
    The gate mark, normally in the lower right, is missing here.
    A missing screw in the lower right of the part would look like this.
    It looks as if the screw in the lower right had come loose.
    The mark does not look like the compact pores described in the procedure.
    The region is much smaller than the round recess.
    The region is smaller than a pixel of the old camera.
    Size and position speak for handling in the packing station at the bottom of the line.
    It was the brightest image of the lot.
    It is not as bright as the label.
    It is the second region of three.
    The mark is on the wrong side of the limit.
    The mark is in line with the lower right screw.
    The dark side of the part faces the camera.
    The narrow side of the part is in focus.
    Deep scratches of this kind are usually 50 px long.
    In general, dents are round and bright.
    Long, thin marks are typical of handling.
    The part has 12 holes and a round flange.
    The hole pattern is irregular.
    Without a second image no statement on depth can be made.
    This has no bearing on the lower right bore.
    That is 30 % of the daily scrap.
    The yield is 95 % of the target.
    A tolerance of 0.05 mm applies to the width.
    The width tolerance is 0.05 mm.
    The part is 120 mm long and 80 mm wide.
    The image is 400 px wide.
    The region of interest is 200 x 200 px.
    The bounding box measures 24 x 24 px.
    This image was taken at 12 o'clock noon.
    It takes place at 6 o'clock.
    The line was stopped at 6 o'clock.
    The region is bright in the infrared image.
    Right here, the coating is thinner.
    Bottom line: have it checked.
    The area is left out of the drawing.
    What is left of the coating is brighter.
    The left one is bluer.
    It is a bright idea to re-inspect it.
    It has the shape of a compact disc drive.
    The region is cut off from the round flange.
    The mark lies in the lower right of the label.
    The mark lies at the bottom of the groove.
    The mark lies at the centre of the bore.
    The mark lies on the right of the two flanges.
    The mark lies in the middle of a long weld.
    The mark lies on a round boss.
    The mark lies in a bright zone of the part.
    The mark lies within a brighter area.
    The mark lies where the part is brightest.
    The mark lies between a bright and a dark strip.
    The mark lies over the right third bolt.
    The mark disappears in the lower right light setting.
    It differs from the compact marks of lot 41.
    The finding is more of a bright reflection.
    """.strip().splitlines()
)
